/** The service's protocol, version 1, as TypeScript: docs/protocol.md says what it means. */

/** (x, y) in pixels of the session's picture. */
export type Point = [x: number, y: number];
/** A handle and its target: (hx, hy, tx, ty). */
export type Drag = [hx: number, hy: number, tx: number, ty: number];
export type Base = "source" | "result" | "inverted" | "last";
export type ImageFormat = "jpeg" | "webp" | "png";

export type ErrorCode =
  | "image" | "point" | "mask" | "settings" | "session" | "busy" | "cancelled" | "deadline"
  | "too_large" | "unsupported" | "malformed" | "unauthorised" | "forbidden" | "not_found"
  | "draining" | "loading" | "internal";

/** The body of every answer of 400 and above. */
export interface Refusal { error: { code: ErrorCode; message: string } }

/** GET /api/v1/info */
export interface Info {
  version: string;
  protocol: 1;
  model: { name: string; side: number };
  presets: { name: string; summary: string }[];
  limits: { body_bytes: number; pixels: number; side: number };
  samples: Sample[];
  personalise: boolean;
}

export interface Sample {
  name: string;
  prompt: string;
  width: number;
  height: number;
  drags: Drag[];
  mask: boolean;
}

export interface State {
  id: string;
  width: number;
  height: number;
  prompt: string;
  negative_prompt: string;
  /** Rises with every change of what is seen. */
  version: number;
  can_undo: boolean;
  can_redo: boolean;
  mask: boolean;
  grip: boolean;
  adapter: boolean;
  warnings: string[];
}

/** POST /api/v1/sessions/ID/drag */
export interface DragRequest {
  drags: Drag[];
  preset?: string;
  base?: Base;
  settings?: Record<string, unknown>;
  timeout_s?: number;
}

export interface Result {
  state: State;
  reached: boolean;
  iterations: number;
  seconds: number;
  timings_ms: Record<string, number>;
  method: string;
  preset: string | null;
  base: Base;
  points: { ended: Point; target: Point }[];
  warnings: string[];
}

export interface Progress { stage: string; done: number; of: number }

/** What the client sends on the WebSocket /api/v1/sessions/ID/live, as JSON text. */
export type ToService =
  | { type: "grab"; handles: Point[]; preset?: string; base?: "source" | "result"; format?: ImageFormat; quality?: number }
  | { type: "move"; seq: number; targets: Point[] }
  | { type: "release"; preset?: string }
  | { type: "keep" }
  | { type: "cancel" }
  | { type: "ping"; at: number };

/** What the service sends as JSON text; frames are binary. */
export type FromService =
  | { type: "ready"; state: State }
  | { type: "grabbed" }
  | ({ type: "progress" } & Progress)
  | ({ type: "result" } & Result)
  | { type: "state"; state: State }
  | { type: "pong"; at: number }
  | { type: "error"; code: ErrorCode; message: string };

/** A binary message, read: bytes 0-1 "DN", 2 version, 3 kind, 4 format, 8-11 seq, 12-15 ms, 16- picture. */
export interface Frame {
  kind: "warped" | "model" | "refined";
  /** Of the move that it answers. */
  seq: number;
  /** From the move's arrival to the frame. */
  ms: number;
  blob: Blob;
}

