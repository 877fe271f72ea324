// What goes wrong with a scene or a device, in words for users. `kind` says what can be done about it.
export class EngineError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "EngineError";
    this.kind = kind;
  }
}
