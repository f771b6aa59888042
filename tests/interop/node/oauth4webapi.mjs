// A client that validates every answer to the letter: oauth4webapi, with private_key_jwt, signed userinfo and signed
// introspection, in the code flow and in the hybrid one. Argument: JSON of issuer, client_id, key, redirect_uri.
import * as oauth from 'oauth4webapi'
import { ask, told, tell } from './person.mjs'

const issuer = new URL(told.issuer)
const { redirect_uri } = told
const client = {
  client_id: told.client_id,
  id_token_signed_response_alg: 'RS256',
  userinfo_signed_response_alg: 'RS256',
  introspection_signed_response_alg: 'RS256',
}
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer))
const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
const key = await crypto.subtle.importKey('jwk', told.key, algorithm, false, ['sign'])
const authentication = oauth.PrivateKeyJwt({ key, kid: told.key.kid })

async function signIn(parameters, validate) {
  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const nonce = oauth.generateRandomNonce()
  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams({
    client_id: client.client_id,
    redirect_uri,
    scope: 'openid profile email',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    ...parameters,
  })
  const landed = new URL(await ask({ authorize: url.href, redirect_uri }))
  const answer = await validate(landed, state, nonce)
  const response = await oauth.authorizationCodeGrantRequest(
    as, client, authentication, answer, redirect_uri, verifier,
  )
  const requireIdToken = true
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, {
    expectedNonce: nonce, requireIdToken, maxAge: parameters.max_age && Number(parameters.max_age),
  })
  await oauth.validateApplicationLevelSignature(as, response)
  return { tokens, claims: oauth.getValidatedIdTokenClaims(tokens), iss: landed.searchParams.get('iss') }
}

const code = await signIn({ response_type: 'code', max_age: '3600' }, (url, state) =>
  oauth.validateAuthResponse(as, client, url, state),
)
const hybrid = await signIn({ response_type: 'code id_token' }, (url, state, nonce) =>
  oauth.validateCodeIdTokenResponse(as, client, url, nonce, state),
)

const asked = await oauth.userInfoRequest(as, client, code.tokens.access_token)
const userinfo = await oauth.processUserInfoResponse(as, client, code.claims.sub, asked)
await oauth.validateApplicationLevelSignature(as, asked)

const looked = await oauth.introspectionRequest(as, client, authentication, code.tokens.access_token)
const introspection = await oauth.processIntrospectionResponse(as, client, looked)
await oauth.validateApplicationLevelSignature(as, looked)

const request = new Request('https://api.example/', {
  headers: { authorization: `Bearer ${code.tokens.access_token}` },
})
const ofResource = await oauth.validateJwtAccessToken(as, request, told.issuer)

tell({
  claims: code.claims,
  iss: code.iss,
  hybrid: hybrid.claims,
  userinfo,
  introspection,
  ofResource,
  types: [asked, looked].map((response) => response.headers.get('content-type')),
})
