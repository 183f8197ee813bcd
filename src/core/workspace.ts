// The contract of a workspace: files and ordinary processes of one bot. agent/ implements it on the spot, remote/
// speaks it to an agent far away, and one suite in test/contract runs over both.

/** A path inside a workspace: text, or bytes when the name is not UTF-8. Relative paths are below `/data`. */
export type WorkspacePath = string | Uint8Array;

/** Options of every call that waits. */
export interface Wait {
  readonly signal?: AbortSignal | undefined;
}

/** Who answers: the identity that is checked before a connection is used. */
export interface Hello {
  readonly botId: string;
  /** Made by the host for each start of the container. */
  readonly bootId: string;
  readonly version: string;
  readonly commit: string;
  readonly runtime: string;
  readonly capabilities: readonly string[];
}

export interface Health {
  readonly uptimeMs: number;
  readonly rssBytes: number;
  /** Ordinary processes running. */
  readonly processes: number;
}

/** One file, as `lstat` (or `stat`) tells it. */
export interface FileEntry {
  /** Base name (flat list, stat) or path relative to the listed directory (recursive), bytes as they are on disk. */
  readonly path: Buffer;
  readonly isDir: boolean;
  /** Bytes. */
  readonly size: number;
  /** Go's mode string: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`. */
  readonly mode: string;
  /** st_mode & 0o7777 */
  readonly perm: number;
  readonly uid: number;
  readonly gid: number;
  /** Modification time, nanoseconds since 1970. */
  readonly mtimeNs: bigint;
  /** RFC 3339 with second precision and the agent's zone, as on the wire. */
  readonly modTime: string;
  readonly linkTarget?: Buffer;
}

/** A page of numbered lines for a model to read: the original's ReadFile. */
export interface TextPage {
  /** `%6d\ttext\n` per line. */
  readonly content: string;
  /** Lines of the whole file. */
  readonly totalLines: number;
  /** A NUL byte was seen: content is empty, totalLines 0. */
  readonly binary: boolean;
  readonly truncated: boolean;
  /** First line not returned; 0 at the end. */
  readonly nextLine: number;
  /** Bytes that were not UTF-8 stand as U+FFFD. */
  readonly lossy: boolean;
}

export interface ListOptions extends Wait {
  readonly recursive?: boolean;
  readonly offset?: number;
  /** At most so many entries; without it the whole list up to 16 MiB, else `resource_exhausted`. */
  readonly limit?: number;
  readonly maxEntries?: number;
}

export interface Listing {
  readonly entries: readonly FileEntry[];
  readonly totalCount: number;
  readonly truncated: boolean;
  /** Directories of a recursive walk that could not be read. */
  readonly unreadable: readonly Buffer[];
}

/** What a command is and what it runs in. */
export interface ExecSpec extends Wait {
  /** A shell line for `/bin/sh -c`, or an argument vector. */
  readonly command: string | readonly string[];
  /** Relative to `/data`; `/data` when absent. */
  readonly cwd?: WorkspacePath;
  /** Over the image's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Start from an empty environment. */
  readonly cleanEnv?: boolean;
  readonly unsetEnv?: readonly string[];
  /** A terminal of this size; stdout carries both streams then. */
  readonly pty?: TerminalSize;
  /** Milliseconds; none when absent. */
  readonly timeoutMs?: number;
}

export interface TerminalSize {
  readonly cols: number;
  readonly rows: number;
}

/** How a process ended. Exactly one of the two ways. */
export interface ExitStatus {
  /** Exit code, or -1 when a signal ended it. */
  readonly code: number;
  /** Name of the signal (SIGKILL…), or undefined. */
  readonly signal: string | undefined;
  readonly timedOut: boolean;
}

export type ExecEvent =
  | { readonly kind: "stdout"; readonly data: Uint8Array }
  | { readonly kind: "stderr"; readonly data: Uint8Array }
  | { readonly kind: "exit"; readonly status: ExitStatus };

/** A running ordinary process. Disposing ends it and everything in its session. */
export interface Execution extends AsyncDisposable {
  /** Output as it comes, then exactly one `exit`, always last. Not reading it stops the process's output. */
  readonly events: AsyncIterable<ExecEvent>;
  /** Feeds stdin; resolves when more is taken. Rejects `failed_precondition` once stdin is closed. */
  write(data: Uint8Array): Promise<void>;
  /** Closes stdin. */
  end(): Promise<void>;
  resize(size: TerminalSize): Promise<void>;
  /** Signals the process group by name (SIGINT…). */
  kill(signal: string): Promise<void>;
}

/** What a tree held. `sha256` is defined in core/tree-hash.ts. */
export interface TreeSummary {
  readonly entries: number;
  readonly bytes: number;
  readonly sha256: Buffer;
  readonly skipped: readonly TreeSkip[];
  readonly xattrsUnsupported: boolean;
}

export interface TreeSkip {
  readonly path: Buffer;
  readonly reason: string;
  /** An error, rather than a kind of file that trees do not carry. */
  readonly failed: boolean;
}

/** What happens to an entry that exists. */
export type TreeConflict = "fail" | "replace" | "keep" | "rename";

export interface TreeWritten {
  readonly summary: TreeSummary;
  /** Entries that existed and were kept or renamed. */
  readonly conflicts: readonly Buffer[];
}

/** Tar bytes of a tree; the summary is there once the bytes have been read to the end. */
export interface TreeReader {
  readonly data: AsyncIterable<Uint8Array>;
  readonly summary: Promise<TreeSummary>;
}

/** Files and ordinary processes of one bot. Every failure is a Fault. */
export interface Workspace {
  hello(wait?: Wait): Promise<Hello>;
  health(wait?: Wait): Promise<Health>;
  /** The agent's own log, oldest first. */
  logs(
    options?: Wait & { readonly tailLines?: number; readonly follow?: boolean },
  ): AsyncIterable<Uint8Array>;

  readText(
    path: WorkspacePath,
    options?: Wait & { readonly lineOffset?: number; readonly lines?: number },
  ): Promise<TextPage>;
  writeFile(path: WorkspacePath, content: Uint8Array, wait?: Wait): Promise<void>;
  list(path: WorkspacePath, options?: ListOptions): Promise<Listing>;
  stat(path: WorkspacePath, options?: Wait & { readonly noFollow?: boolean }): Promise<FileEntry>;
  mkdir(path: WorkspacePath, wait?: Wait): Promise<void>;
  rename(from: WorkspacePath, to: WorkspacePath, wait?: Wait): Promise<void>;
  /** A missing target is success. */
  remove(path: WorkspacePath, options?: Wait & { readonly recursive?: boolean }): Promise<void>;
  /**
   * Resolves once the file is open, so that its errors come here and not in the middle of the bytes. A length of 0 is to
   * the end.
   */
  readRaw(
    path: WorkspacePath,
    options?: Wait & { readonly offset?: number; readonly length?: number },
  ): Promise<AsyncIterable<Uint8Array>>;
  /** Replaces the file when the source ends; a source that throws leaves the old file. @returns bytes written */
  writeRaw(path: WorkspacePath, source: AsyncIterable<Uint8Array>, wait?: Wait): Promise<number>;
  readTree(path: WorkspacePath, wait?: Wait): Promise<TreeReader>;
  writeTree(
    path: WorkspacePath,
    data: AsyncIterable<Uint8Array>,
    options?: Wait & {
      readonly conflict?: TreeConflict;
      /** Called after the data: what was written must match it, else `data_loss`. */
      readonly expected?: () => Promise<TreeSummary>;
    },
  ): Promise<TreeWritten>;

  /** Starts a process. Rejects when it cannot be started. */
  exec(spec: ExecSpec): Promise<Execution>;
}

/** Gives the workspace of a bot. The pool implements it; tests inject their own. */
export interface WorkspaceProvider {
  /** @throws Fault not_found, failed_precondition (not running) or unavailable */
  workspace(botId: string, wait?: Wait): Promise<Workspace>;
}
