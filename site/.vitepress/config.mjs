// The site's configuration: every Markdown page of the repository that is for users, as it stands, with search.
//
// SITE_REPOSITORY  where links to files that are no pages lead, such as https://github.com/you/roomcast/blob/main;
//                  without it they are plain text
// SITE_BASE        the path that the site is served under, "/" by default
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";
import { pages } from "../pages.mjs";
import { fileLinks, githubAnchors, tabs } from "../markdown.mjs";

const installed = (file) => fileURLToPath(new URL(`../node_modules/${file}`, import.meta.url));

export default defineConfig({
  title: "roomcast",
  description: "A realtime server that sits beside your backend: Socket.IO, WebSocket and SSE clients, rooms, recovery.",
  lang: "en",
  srcDir: "..",
  srcExclude: pages.exclude,
  rewrites: pages.rewrites,
  outDir: "dist",
  base: process.env.SITE_BASE ?? "/",
  cleanUrls: false,
  lastUpdated: false,
  ignoreDeadLinks: "localhostLinks",
  // The pages are outside of this folder, which has the packages that they are compiled to use.
  vite: {
    resolve: {
      alias: [
        { find: /^vue$/, replacement: installed("vue/dist/vue.runtime.esm-bundler.js") },
        { find: "vue/server-renderer", replacement: installed("@vue/server-renderer/dist/server-renderer.esm-bundler.js") },
      ],
    },
  },
  // The pages hold `{{`, which is a placeholder of theirs and nothing of Vue's.
  vue: { template: { compilerOptions: { delimiters: ["{{{vue", "vue}}}"] } } },
  markdown: {
    anchor: { slugify: githubAnchors() },
    languageAlias: { acl: "ini", caddyfile: "nginx", haproxy: "nginx" },
    config(markdown) {
      markdown.use(tabs);
      markdown.use(fileLinks, process.env.SITE_REPOSITORY);
    },
  },
  themeConfig: {
    search: { provider: "local", options: { detailedView: true } },
    outline: { level: [2, 3] },
    sidebar: pages.sidebar,
    nav: [
      { text: "Start", link: "/" },
      { text: "By task", link: "/docs/" },
      { text: "HTTP API", link: "/docs/http-api" },
      { text: "Configuration", link: "/docs/configuration" },
    ],
  },
});
