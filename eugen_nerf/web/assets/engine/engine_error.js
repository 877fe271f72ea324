// What goes wrong with a scene or a device, in words for users. `kind` says what can be done about it, `reason` is the
// message for programs that show no scene.
export class EngineError extends Error {
  constructor(kind, message, reason = message) {
    super(message);
    this.reason = reason;
    this.name = "EngineError";
    this.kind = kind;
  }
}
