// Chain ids: names of snapshots that stand for a stack of layers.
import { digestOf } from "./digest.ts";

/**
 * The chain id of every layer with those below it, lowest first, from the diff ids of the image config. (Digests of
 * layer blobs are of the compressed bytes and give other, wrong names.)
 * https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
 */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return chain;
}
