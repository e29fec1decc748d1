import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const client = fileURLToPath(new URL("../clients/typescript/src/index.ts", import.meta.url));

export default defineConfig({
  resolve: { alias: { "@conure/client": client } },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 300_000, // what is waited for comes late on a busy machine
    hookTimeout: 300_000,
    expect: { poll: { timeout: 120_000 } },
    fileParallelism: false,
    globalSetup: "../clients/typescript/test/server.ts",
  },
});
