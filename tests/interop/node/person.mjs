// What a script of ours is told, how it asks for a person at a browser, and how it tells what came of it.
import { createInterface } from 'node:readline'

export const told = JSON.parse(process.argv[2])
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

export async function ask(what) {
  console.log(JSON.stringify(what))
  return JSON.parse((await lines.next()).value)
}

export function tell(result) {
  console.log(JSON.stringify({ result }))
  process.exit(0)
}
