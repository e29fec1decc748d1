import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const client = (file: string) => fileURLToPath(new URL(`../clients/typescript/src/${file}`, import.meta.url));

// Names without hashes: what is built is committed, and the server's ETags say what has changed.
export default defineConfig({
  base: "./",
  resolve: {
    alias: [
      { find: "@conure/client/microphone", replacement: client("microphone.ts") },
      { find: "@conure/client", replacement: client("index.ts") },
    ],
  },
  build: {
    outDir: "../src/conure/page",
    emptyOutDir: true,
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      external: /node_socket/, // browsers have WebSockets
      input: { index: "index.html", recorder: client("recorder.ts") },
      output: { entryFileNames: "assets/[name].js", chunkFileNames: "assets/[name].js", assetFileNames: "assets/[name][extname]" },
    },
  },
});
