// The part of the environment that programs we start to build images need: where home is, and how the network is reached.

const KEEP =
  /^(HOME|(https?|no|all|ftp)_proxy|npm_config_.*|DOCKER_.*|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|TMPDIR)$/i;

/** Variables for npm, docker and apt; nothing else of the environment reaches them. */
export function toolEnvironment(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(env))
    if (value !== undefined && KEEP.test(name)) kept[name] = value;
  return kept;
}
