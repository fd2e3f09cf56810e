// The demo's page: two panes, the nodes, a count of what arrives, the packets, and snippets.
import { countEvents } from "./count.js";
import { showNodes } from "./nodes.js";
import { Pane } from "./pane.js";
import { showSnippets } from "./snippets.js";
import { showPackets } from "./wire.js";

const demo = JSON.parse(document.getElementById("demo").textContent);
const section = (name) => document.getElementById(name);
const panes = demo.people.map((person, index) => new Pane(section(["pane-a", "pane-b"][index]), demo, person));
showPackets(section("wire"), panes);
countEvents(section("count"), demo, panes);
showSnippets(section("snippets"), demo);
if (demo.control) showNodes(section("nodes"), demo, panes);
else for (const part of document.querySelectorAll(".with-nodes")) part.remove();
