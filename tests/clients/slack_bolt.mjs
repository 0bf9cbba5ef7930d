// The receiver of Slack's own framework, with a signing secret: what it takes is a line each.
import bolt from "@slack/bolt";

const receiver = new bolt.HTTPReceiver({ signingSecret: process.env.SECRET, logLevel: "error" });
receiver.init({
  async processEvent({ body, ack }) {
    await ack();
    console.log(body.event_id ?? body.command);
  },
});
await receiver.start(Number(process.env.PORT));
console.log("ready");
