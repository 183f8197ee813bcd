// The machine's own Debian mirror: its apt sources, of both formats, without those that are not the distribution's.

/** The distribution's own entries of one machine. */
export interface AptSources {
  /** `bookworm` */
  readonly codename: string;
  /** The entries as one deb822 file, which mmdebstrap takes in place of a mirror. */
  readonly deb822: string;
}

interface Entry {
  readonly uris: string;
  readonly suites: readonly string[];
  readonly components: string;
  readonly signedBy: string | undefined;
}

/**
 * Reads sources.list lines and .sources stanzas and keeps what belongs to the release, its updates and its security.
 * @param files content by path
 * @param osRelease content of /etc/os-release
 * @returns undefined when the machine has no such source
 */
export function readAptSources(
  files: ReadonlyMap<string, string>,
  osRelease: string,
): AptSources | undefined {
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(osRelease)?.[1];
  if (codename === undefined) return undefined;
  const ours = (suite: string) =>
    [codename, `${codename}-updates`, `${codename}-security`, `${codename}/updates`].includes(suite);
  const entries: Entry[] = [];
  for (const [path, content] of files) {
    const found = path.endsWith(".sources") ? stanzas(content) : lines(content);
    for (const entry of found) {
      const suites = entry.suites.filter(ours);
      if (suites.length > 0) entries.push({ ...entry, suites });
    }
  }
  if (!entries.some((entry) => entry.suites.includes(codename))) return undefined;
  return { codename, deb822: [...new Set(entries.map(write))].join("\n") };
}

function write(entry: Entry): string {
  const signed = entry.signedBy === undefined ? "" : `Signed-By:${fold(entry.signedBy)}\n`;
  return `Types: deb\nURIs: ${entry.uris}\nSuites: ${entry.suites.join(" ")}\nComponents: ${entry.components}\n${signed}`;
}

/** A key may be a path or, over many lines, the key itself. */
function fold(value: string): string {
  return value.includes("\n") ? value : ` ${value}`;
}

/** deb822: fields of one stanza, continued on lines that begin with a blank. */
function stanzas(content: string): Entry[] {
  const entries: Entry[] = [];
  for (const stanza of content.replaceAll(/^#.*\n?/gm, "").split(/\n\s*\n/)) {
    const fields = new Map<string, string>();
    for (const [, name = "", value = ""] of stanza.matchAll(/^([A-Za-z-]+):(.*(?:\n[ \t].*)*)/gm)) {
      fields.set(name.toLowerCase(), value.includes("\n") ? value : value.trim());
    }
    const uris = fields.get("uris");
    if (uris === undefined || fields.get("enabled") === "no") continue;
    if (!words(fields.get("types") ?? "").includes("deb")) continue;
    entries.push({
      uris: words(uris).join(" "),
      suites: words(fields.get("suites") ?? ""),
      components: words(fields.get("components") ?? "").join(" "),
      signedBy: fields.get("signed-by"),
    });
  }
  return entries;
}

/** One line each: `deb [signed-by=…] URI suite component…` */
function lines(content: string): Entry[] {
  const entries: Entry[] = [];
  for (const line of content.split("\n")) {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(#.*)?$/.exec(line.trim());
    if (match === null) continue;
    const [, options = "", uri = "", suite = "", components = ""] = match;
    const signedBy = /\bsigned-by=(\S+)/.exec(options)?.[1];
    entries.push({ uris: uri, suites: [suite], components: words(components).join(" "), signedBy });
  }
  return entries;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}
