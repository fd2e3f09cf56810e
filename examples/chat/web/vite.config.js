import { defineConfig } from "vite";

export default defineConfig({
  esbuild: { jsx: "automatic" },
  // `npm run dev`: the page from here, the API from the backend.
  server: { port: 5173, strictPort: true, proxy: { "/api": "http://127.0.0.1:3000" } },
});
