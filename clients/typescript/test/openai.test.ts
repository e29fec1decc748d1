import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { serve } from "./server.js";
import { SAID } from "./speech.js";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const TLS = (name: string) => path(`../../../tests/data/tls/${name}`);

test("OpenAI's client for Node over TLS, with a self-signed certificate", { timeout: 300_000 }, async () => {
  const certificate = TLS("localhost.pem");
  const server = await serve("free", "--tls-certificate", certificate, "--tls-key", TLS("localhost.key.pem"));
  try {
    const words = String(SAID.split(" ").length);
    const base = server.url.replace("127.0.0.1", "localhost");
    const asked = [path("openai_realtime.mjs"), base, path("../../../tests/conformance/speech.wav"), words];
    const { stdout } = await promisify(execFile)(process.execPath, asked, { env: { ...process.env, NODE_EXTRA_CA_CERTS: certificate } });
    expect(stdout.trim()).toBe(SAID);
  } finally {
    await server.kill("SIGTERM");
  }
});
