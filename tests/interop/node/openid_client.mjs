// A web site with openid-client: registers itself, signs a person in, asks about them, refreshes, introspects, revokes,
// signs them out. Then a device, and a job without a person. Argument: JSON of issuer, invitation, redirect_uri.
import * as client from 'openid-client'
import { ask, told, tell } from './person.mjs'

const { issuer, invitation, redirect_uri, home } = told
const config = await client.dynamicClientRegistration(
  new URL(issuer),
  {
    client_name: 'A web site with openid-client',
    redirect_uris: [redirect_uri],
    post_logout_redirect_uris: [home],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
    scope: 'openid profile email offline_access',
    token_endpoint_auth_method: 'client_secret_post',
  },
  undefined,
  { initialAccessToken: invitation },
)
const registered = config.clientMetadata()

const checks = {
  pkceCodeVerifier: client.randomPKCECodeVerifier(),
  expectedState: client.randomState(),
  expectedNonce: client.randomNonce(),
  idTokenExpected: true,
}
const url = client.buildAuthorizationUrl(config, {
  redirect_uri,
  scope: 'openid profile email offline_access',
  prompt: 'consent',
  code_challenge: await client.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
  code_challenge_method: 'S256',
  state: checks.expectedState,
  nonce: checks.expectedNonce,
})
const landed = new URL(await ask({ authorize: url.href, redirect_uri }))
const tokens = await client.authorizationCodeGrant(config, landed, checks)
const claims = tokens.claims()
const userinfo = await client.fetchUserInfo(config, tokens.access_token, claims.sub)
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token)
const alive = await client.tokenIntrospection(config, refreshed.access_token)
await client.tokenRevocation(config, refreshed.refresh_token)
const revoked = await client.tokenIntrospection(config, refreshed.access_token)
const logout = client.buildEndSessionUrl(config, {
  post_logout_redirect_uri: home,
  id_token_hint: tokens.id_token,
  state: 'at home',
})
const left = await ask({ logout: logout.href, redirect_uri: home })

const device = await client.initiateDeviceAuthorization(config, { scope: 'openid email' })
await ask({ device: device.verification_uri, user_code: device.user_code })
const ofDevice = await client.pollDeviceAuthorizationGrant(config, device)
const seenByDevice = await client.fetchUserInfo(config, ofDevice.access_token, ofDevice.claims().sub)

// Who registers itself gets no permissions: whatever it asks for is refused, and it says so.
const job = await client.clientCredentialsGrant(config, {}).then(
  (tokens) => ({ scope: tokens.scope ?? '' }),
  (error) => ({ refused: error.error }),
)
tell({ registered, claims, userinfo, alive, revoked, left, seenByDevice, job, refreshed: refreshed.claims() })
