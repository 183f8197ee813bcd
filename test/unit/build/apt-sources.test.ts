import assert from "node:assert/strict";
import { test } from "node:test";
import { readAptSources } from "../../../src/host/bot-image/apt-sources.ts";

const BOOKWORM = 'PRETTY_NAME="Debian"\nVERSION_CODENAME=bookworm\nID=debian\n';

function read(files: Record<string, string>, release = BOOKWORM) {
  return readAptSources(new Map(Object.entries(files)), release);
}

test("a deb822 file keeps the release, its updates and its security, and loses comments and foreign suites", () => {
  const sources = read({
    "/etc/apt/sources.list.d/debian.sources": `Types: deb deb-src
# http://snapshot.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`,
  });
  assert.equal(sources?.codename, "bookworm");
  assert.equal(
    sources.deb822,
    `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`,
  );
});

test("one-line sources are read with their key, and other vendors' are left out", () => {
  const sources = read({
    "/etc/apt/sources.list": `# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/k/debian.gpg] http://mirror.example/debian  bookworm   main non-free-firmware # ours
deb http://mirror.example/debian-security bookworm-security main
deb-src http://mirror.example/debian bookworm main
`,
    "/etc/apt/sources.list.d/cloud.list": "deb https://vendor.example/apt cloud-sdk-bookworm main\n",
    "/etc/apt/sources.list.d/node.sources":
      "Types: deb\nURIs: https://vendor.example/node\nSuites: nodistro\nComponents: main\n",
  });
  assert.equal(
    sources?.deb822,
    `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main non-free-firmware
Signed-By: /k/debian.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`,
  );
});

test("a key that is written into the file stays as it is", () => {
  const key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----";
  const sources = read({
    "/x.sources": `Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:${key}\n`,
  });
  assert.ok(sources?.deb822.includes(`Signed-By:${key}\n`), sources?.deb822);
});

test("a disabled stanza, a machine without its own release and a system without a codename give no sources", () => {
  const stanza = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
  assert.equal(read({ "/x.sources": `Enabled: no\n${stanza}` }), undefined);
  assert.equal(read({ "/x.sources": stanza.replace("bookworm", "bookworm-security") }), undefined);
  assert.equal(read({ "/x.sources": stanza }, "ID=alpine\n"), undefined);
  assert.equal(read({}), undefined);
});
