// Runs the script of the check_session iframe in a window made of three functions.
// Standard input: {script, name, cookie, messages: [{data, origin}]}; output: [[answer, origin] or null, ...].
import { readFileSync } from "node:fs";
import { runInNewContext } from "node:vm";

const { script, name, cookie, messages } = JSON.parse(readFileSync(0, "utf8"));
let listen;
runInNewContext(script, {
  window: { addEventListener: (_event, listener) => (listen = listener) },
  document: { cookie, body: { getAttribute: (attribute) => (attribute === "data-cookie" ? name : null) } },
  encodeURIComponent,
  unescape,
});
const answers = messages.map(({ data, origin }) => {
  let answer = null;
  listen({ data, origin, source: { postMessage: (...sent) => (answer = sent) } });
  return answer;
});
process.stdout.write(JSON.stringify(answers));
