// The JSON the host answers with, as far as verbs print it.

export interface BotJson {
  readonly id: string;
  readonly name: string;
  readonly owner_id: string;
  readonly state: string;
  readonly desired: string;
  readonly ip: string | null;
  readonly container_id: string | null;
  readonly image: string | null;
  readonly limits: { readonly memory?: number; readonly pids?: number; readonly cpus?: number };
  readonly disk_usage: number | null;
  readonly last_error: {
    readonly code: string;
    readonly message: string;
    readonly hint: string | null;
    readonly step: string;
    readonly at: string;
    readonly retryable: boolean;
  } | null;
  readonly attempts: number;
  readonly next_attempt_at: string | null;
  readonly created_at: string;
}

export interface FileJson {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly mode: string;
  readonly modTime: string;
  readonly isDir: boolean;
  readonly linkTarget?: string;
}

export interface ImageJson {
  readonly name: string;
  readonly digest: string;
  readonly size: number;
  readonly platform: string;
  readonly created_at: string;
}

export interface TokenJson {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly bots: readonly string[];
  readonly created_at: string;
  readonly last_used_at: string | null;
  readonly token?: string;
}

export interface CheckJson {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
  readonly hint?: string | undefined;
}

export interface Items<T> {
  readonly items: readonly T[];
}
