// What the pages need beyond Markdown as GitHub shows it, so that they read well there and here.
import { existsSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import GithubSlugger from "github-slugger";

const ROOT = path.resolve(fileURLToPath(import.meta.url), "../..");

/** Anchors as GitHub makes them: the pages link to those. */
export function githubAnchors() {
  const slugger = new GithubSlugger();
  return (heading) => {
    slugger.reset();                     // markdown-it-anchor numbers repeated headings itself
    return slugger.slug(heading);
  };
}

/**
 * Fenced blocks that follow each other and are each named, as in "```js [Node]", become tabs. On GitHub they are blocks one
 * after the other.
 */
export function tabs(markdown) {
  const label = (token) => (token?.type === "fence" ? /\[([^\]]+)\]/.exec(token.info)?.[1] : undefined);
  let group = 0;
  markdown.core.ruler.push("tabs", ({ tokens, Token }) => {
    for (let first = 0; first < tokens.length; first++) {
      let end = first;
      while (label(tokens[end])) end++;
      if (end - first < 2) continue;
      group++;
      const names = tokens.slice(first, end).map(label);
      const inputs = names.map((name, index) => {
        const id = `tab-${group}-${index}`;
        const checked = index === 0 ? " checked" : "";
        return `<input type="radio" name="group-${group}" id="${id}"${checked}><label data-title="${name}" for="${id}">${name}</label>`;
      });
      if (!tokens[first].info.includes("active")) tokens[first].info += " active";
      const open = new Token("html_block", "", 0);
      open.content = `<div class="vp-code-group"><div class="tabs">${inputs.join("")}</div><div class="blocks">`;
      const close = new Token("html_block", "", 0);
      close.content = "</div></div>";
      tokens.splice(end, 0, close);
      tokens.splice(first, 0, open);
      first = end + 1;
    }
  });
}

/** Links to files that are no pages lead to the repository, or are plain text where none is configured. */
export function fileLinks(markdown, repository) {
  markdown.core.ruler.after("inline", "file-links", ({ tokens, env }) => {
    for (const { children } of tokens.filter((token) => token.type === "inline")) {
      let dropping = false;
      for (const child of children) {
        if (child.type === "link_open") {
          const target = outside(child.attrGet("href"), env.realPath ?? env.path);
          if (target && repository) child.attrSet("href", `${repository}/${target}`);
          dropping = target !== null && !repository;
          if (dropping) Object.assign(child, { type: "html_inline", content: `<span title="${target}">`, attrs: null });
        } else if (child.type === "link_close" && dropping) {
          Object.assign(child, { type: "html_inline", content: "</span>" });
          dropping = false;
        }
      }
    }
  });
}

/** The path in the repository of a link that leads to no page; null for a page or another site. */
function outside(href, from) {
  if (/^([a-z]+:|#|\/)/.test(href)) return null;
  const file = path.resolve(path.dirname(from), href.split("#")[0]);
  const inside = path.relative(ROOT, file);
  const isPage = file.endsWith(".md") && existsSync(file) && !/^(tests|src|fuzz)\//.test(inside);
  if (isPage) return null;
  if (existsSync(file) && statSync(file).isDirectory() && existsSync(path.join(file, "README.md")) && !/^(tests|src|fuzz)/.test(inside)) return null;
  return inside;
}
