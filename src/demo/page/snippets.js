// What publishes to the panes, in several languages, ready to be pasted.

const EVENT = (demo) => ({ room: demo.fullRoom, event: "message", data: { name: "your backend", text: "Hello" } });

const LANGUAGES = {
  curl: (url, demo) => `curl -sS ${url}/publish \\
  -H 'Authorization: Bearer ${demo.key}' -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(EVENT(demo))}'`,
  Node: (url, demo) => `const answer = await fetch("${url}/publish", {
  method: "POST",
  headers: { authorization: "Bearer ${demo.key}" },
  body: JSON.stringify(${JSON.stringify(EVENT(demo))}),
});
console.log(await answer.json());`,
  PHP: (url, demo) => `<?php
$context = stream_context_create(["http" => [
    "method" => "POST",
    "header" => "Authorization: Bearer ${demo.key}\\r\\nContent-Type: application/json\\r\\n",
    "content" => '${JSON.stringify(EVENT(demo))}',
]]);
echo file_get_contents("${url}/publish", false, $context);`,
  Python: (url, demo) => `import json, urllib.request

request = urllib.request.Request(
    "${url}/publish",
    data=json.dumps(${JSON.stringify(EVENT(demo))}).encode(),
    headers={"Authorization": "Bearer ${demo.key}"},
)
print(urllib.request.urlopen(request).read().decode())`,
};

/** Shows them in `root`, one at a time. */
export function showSnippets(root, demo) {
  const code = root.querySelector("code");
  const tabs = root.querySelector(".languages");
  const choose = (language) => {
    code.textContent = LANGUAGES[language](location.origin, demo);
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.textContent === language));
  };
  for (const language of Object.keys(LANGUAGES)) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.setAttribute("role", "tab");
    tab.textContent = language;
    tab.addEventListener("click", () => choose(language));
    tabs.append(tab);
  }
  choose("curl");
  const copy = root.querySelector(".copy");
  copy.addEventListener("click", async () => {
    // Without HTTPS a browser lets pages of this machine copy; elsewhere the text is selected.
    const copied = await navigator.clipboard?.writeText(code.textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren(code);
    copy.textContent = copied ? "Copied" : "Selected";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
}
