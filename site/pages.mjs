// Which pages the site has, and where they stand in the sidebar. tests/site checks that none of docs/ is missing.

const page = (text, link) => ({ text, link });

const sidebar = [
  {
    text: "Begin",
    items: [
      page("A first message", "/"),
      page("By task", "/docs/"),
      page("Connect clients", "/docs/clients"),
      page("Authorize rooms from a database", "/docs/guides/authorize-rooms"),
      page("Example: a chat", "/examples/chat/README"),
      page("Example: Next.js", "/examples/nextjs/README"),
      page("Example: FastAPI", "/examples/fastapi/README"),
      page("Example: PHP", "/examples/php/README"),
    ],
  },
  {
    text: "Move here",
    items: [
      page("From Socket.IO", "/docs/from-socketio"),
      page("From Pusher or Soketi", "/docs/guides/from-pusher"),
      page("From Centrifugo", "/docs/guides/from-centrifugo"),
    ],
  },
  {
    text: "Your stack",
    items: [
      page("Node: @roomcast/server", "/packages/server/README"),
      page("Next.js and serverless", "/docs/guides/serverless"),
      page("Mobile apps", "/docs/guides/mobile"),
    ],
  },
  {
    text: "Rooms and events",
    items: [
      page("Rules", "/docs/rules"),
      page("Asking your backend", "/docs/backend"),
      page("Presence", "/docs/presence"),
      page("Guarantees", "/docs/guarantees"),
    ],
  },
  {
    text: "Operate",
    items: [
      page("Install and deploy", "/docs/deploy"),
      page("Kubernetes", "/docs/kubernetes"),
      page("Console", "/docs/console"),
      page("Change secrets and settings", "/docs/rotation"),
      page("Redis", "/docs/redis"),
      page("Sizing", "/docs/sizing"),
      page("Scaling beyond one Redis", "/docs/scaling"),
      page("Upgrading", "/docs/upgrading"),
      page("Metrics", "/docs/metrics"),
      page("OpenTelemetry", "/docs/telemetry"),
      page("Socket.IO's Admin UI", "/docs/admin-ui"),
      page("Why does my client get nothing?", "/docs/troubleshooting"),
      page("Runbooks", "/docs/runbooks"),
      page("Limits", "/docs/limits"),
      page("Security", "/docs/security"),
    ],
  },
  {
    text: "Reference",
    items: [
      page("Configuration", "/docs/configuration"),
      page("Command line", "/docs/cli"),
      page("HTTP API", "/docs/http-api"),
      page("Socket.IO on the wire", "/docs/protocol/socketio"),
      page("Plain WebSocket", "/docs/protocol/websocket"),
      page("Server-Sent Events", "/docs/protocol/sse"),
      page("Emitters", "/docs/protocol/emitters"),
      page("Measurements", "/benches/README"),
      page("Changes", "/CHANGELOG"),
    ],
  },
  {
    text: "Inside",
    collapsed: true,
    items: [page("Architecture", "/ARCHITECTURE"), page("Decisions", "/docs/decisions/"), page("Contributing", "/CONTRIBUTING"), page("Releasing", "/docs/releasing")],
  },
];

/** The paths that the sidebar leads to, without a leading slash. */
export const linked = sidebar.flatMap(({ items }) => items.map(({ link }) => link.slice(1)));

export const pages = {
  sidebar,
  exclude: ["**/node_modules/**", "**/target/**", "**/.venv/**", "site/**", "src/**", "fuzz/**", "tests/**", "**/dist/**", "**/.next/**"],
  // README.md stands for its folder on the site too, so that links between pages stay as they are.
  rewrites: { "README.md": "index.md", "docs/README.md": "docs/index.md", "docs/decisions/README.md": "docs/decisions/index.md" },
};
