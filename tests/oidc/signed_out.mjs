// Runs the script of the signed-out page. Standard input: {script, href, steps: ["load" | "timer", ...]}; output: where
// the page has gone to by then.
import { readFileSync } from "node:fs";
import { runInNewContext } from "node:vm";

const { script, href, steps } = JSON.parse(readFileSync(0, "utf8"));
const heard = {};
const gone = [];
const window = {
  addEventListener: (event, listener) => (heard[event] = listener),
  setTimeout: (listener, ms) => (heard[`timer of ${ms}`] = listener),
  location: { replace: (to) => gone.push(to) },
};
runInNewContext(script, { window, document: { getElementById: (id) => ({ "logout-continue": { href } })[id] } });
steps.forEach((step) => heard[step]());
process.stdout.write(JSON.stringify(gone));
