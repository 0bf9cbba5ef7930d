// A Slack of `emulate`, which delivers events to a URL that is told to it: each line of the input is
// JSON, `{ "seed": … }` or `{ "subscribe": url }`. The command line of the package knows no way to
// subscribe, so its plugin is asked for what delivers them.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createEmulator } from "emulate";

const dist = dirname(fileURLToPath(import.meta.resolve("emulate")));
const file = readdirSync(dist).find(
  (name) => name.endsWith(".js") && readFileSync(join(dist, name), "utf8").includes("var slackPlugin ="),
);
const { slackPlugin, seedFromConfig } = await import(pathToFileURL(join(dist, file)).href);
let store, webhooks;
const register = slackPlugin.register;
slackPlugin.register = (app, ...parts) => {
  [store, webhooks] = parts;
  register.call(slackPlugin, app, ...parts);
};
const emulator = await createEmulator({ service: "slack", port: Number(process.env.PORT) });
for await (const line of createInterface({ input: process.stdin })) {
  const { seed, subscribe } = JSON.parse(line);
  if (seed) seedFromConfig(store, emulator.url, seed);
  if (subscribe) {
    webhooks.register({ url: subscribe, events: ["*"], active: true, owner: "slack" });
  }
  console.log("done");
}
await emulator.close();
