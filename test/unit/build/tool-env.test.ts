import assert from "node:assert/strict";
import { test } from "node:test";
import { toolEnvironment } from "../../../src/config/tool-env.ts";

test("tools get where home is and how the network is reached, and nothing else", () => {
  const kept = {
    HOME: "/root",
    https_proxy: "http://p:1",
    NO_PROXY: "localhost",
    npm_config_registry: "http://r",
    DOCKER_HOST: "unix:///d",
  };
  const env = { ...kept, MEMOH_TOKEN: "secret", NODE_OPTIONS: "--require x", LD_PRELOAD: "x", PATH: "/x" };
  assert.deepEqual(toolEnvironment(env), kept);
});
