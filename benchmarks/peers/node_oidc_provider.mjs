// node-oidc-provider as its documentation wants it in production: one process for each core, an adapter for Redis,
// access tokens as JWTs for a resource, refresh tokens rotated. Opaque ones for introspection, since it keeps no record
// of the others. Settings come by the environment: PORT, WORKERS, REDIS_URL, KEY_FILE (a private JWK), SEED_FILE.
import cluster from 'node:cluster'
import { readFileSync, writeFileSync, renameSync } from 'node:fs'
import Redis from 'ioredis'
import Provider from 'oidc-provider'

const { PORT, WORKERS, REDIS_URL, KEY_FILE, SEED_FILE, REFRESH_TOKENS } = process.env
const RESOURCE = 'https://api.example'
const redis = new Redis(REDIS_URL, { keyPrefix: 'oidc:' })
const GRANTABLE = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken'])

// The methods and their meaning are those of the documentation's adapter interface. What may be consumed is a hash,
// so that its consumption is one command; the rest is a string.
class RedisAdapter {
  constructor (name) { this.name = name }
  key (id) { return `${this.name}:${id}` }

  async upsert (id, payload, expiresIn) {
    const key = this.key(id)
    const writes = redis.pipeline()
    if (GRANTABLE.has(this.name)) {
      writes.hset(key, 'payload', JSON.stringify(payload))
    } else {
      writes.set(key, JSON.stringify(payload))
    }
    if (expiresIn) writes.expire(key, expiresIn)
    if (GRANTABLE.has(this.name) && payload.grantId) {
      // No shorter-lived member may take the list of a grant with it.
      writes.rpush(`grant:${payload.grantId}`, key)
      if (expiresIn) {
        writes.expire(`grant:${payload.grantId}`, expiresIn, 'NX')
        writes.expire(`grant:${payload.grantId}`, expiresIn, 'GT')
      }
    }
    await writes.exec()
  }

  async find (id) {
    if (!GRANTABLE.has(this.name)) {
      const found = await redis.get(this.key(id))
      return found ? JSON.parse(found) : undefined
    }
    const [payload, consumed] = await redis.hmget(this.key(id), 'payload', 'consumed')
    if (!payload) return undefined
    return consumed ? { ...JSON.parse(payload), consumed: Number(consumed) } : JSON.parse(payload)
  }

  async consume (id) { await redis.hset(this.key(id), 'consumed', Math.floor(Date.now() / 1000)) }
  async destroy (id) { await redis.del(this.key(id)) }

  async revokeByGrantId (grantId) {
    const members = await redis.lrange(`grant:${grantId}`, 0, -1)
    await redis.del(`grant:${grantId}`, ...members)
  }

  // Of sessions and devices, which are not measured.
  async findByUid () { return undefined }
  async findByUserCode () { return undefined }
}

const app = {
  client_id: 'app',
  client_secret: 'secret-of-the-app-of-the-benchmark',
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: ['https://app.example/cb']
}
const service = {
  client_id: 'service',
  client_secret: 'secret-of-the-service-of-the-benchmark',
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: []
}

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  adapter: RedisAdapter,
  clients: [app, service],
  jwks: { keys: [JSON.parse(readFileSync(KEY_FILE, 'utf8'))] },
  cookies: { keys: ['a key of the benchmark'] },
  scopes: ['openid', 'offline_access', 'posts:create'],
  findAccount: async (_ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
  rotateRefreshToken: true,
  ttl: { AccessToken: 300, ClientCredentials: 300, RefreshToken: 30 * 86400, Grant: 30 * 86400 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: async () => ({
        scope: 'posts:create',
        audience: RESOURCE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'RS256' } }
      })
    }
  }
})

// What signing in and consenting would have left: grants, and refresh tokens for them.
async function seed () {
  const client = await provider.Client.find('app')
  const tokens = []
  for (let n = 0; n < Number(REFRESH_TOKENS); n++) {
    const grant = new provider.Grant({ clientId: 'app', accountId: `person${n}` })
    grant.addResourceScope(RESOURCE, 'posts:create')
    const token = new provider.RefreshToken({
      client,
      accountId: `person${n}`,
      grantId: await grant.save(),
      gty: 'authorization_code',
      scope: 'posts:create',
      resource: RESOURCE,
      authTime: Math.floor(Date.now() / 1000),
      rotations: 0
    })
    tokens.push(await token.save())
  }
  const text = JSON.stringify({ clients: { app, service }, refresh_tokens: tokens, resource: RESOURCE })
  writeFileSync(`${SEED_FILE}.part`, text)
  renameSync(`${SEED_FILE}.part`, SEED_FILE)
}

if (cluster.isPrimary) {
  await seed()
  redis.disconnect()
  for (let n = 0; n < Number(WORKERS); n++) cluster.fork()
  process.on('SIGTERM', () => process.exit(0))
} else {
  provider.listen(Number(PORT), '127.0.0.1')
}
