// Verifies the access token on standard input as a resource server would, and prints its claims, or the code of the
// refusal. Arguments: issuer, audience.
import { text } from 'node:stream/consumers'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const [issuer, audience] = process.argv.slice(2)
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
if (metadata.issuer !== issuer) throw new Error('the metadata is for another issuer')
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri))
try {
  const { payload } = await jwtVerify((await text(process.stdin)).trim(), keys, {
    issuer,
    audience,
    typ: 'at+jwt',
    algorithms: ['RS256'],
  })
  console.log(JSON.stringify(payload))
} catch (error) {
  if (!(error instanceof errors.JOSEError)) throw error
  console.log(JSON.stringify({ refused: error.code }))
}
