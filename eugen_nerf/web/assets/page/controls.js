// Mouse, touch and keys on the picture, as motions of the camera.

const TURN = Math.PI; // radians of a drag across the picture's shorter side
const WHEEL = 0.0012; // of the wheel's way, as a logarithm of the distance
const KEY_TURN = 1.2; // radians a second
const KEY_SPEED = 0.7; // distances to the pivot a second
const TURNS = { arrowleft: [1, 0], arrowright: [-1, 0], arrowup: [0, 1], arrowdown: [0, -1] };
const FLIGHTS = { d: [1, 0, 0], a: [-1, 0, 0], e: [0, 1, 0], q: [0, -1, 0], w: [0, 0, 1], s: [0, 0, -1] };
const ZOOMS = { "+": -1, "=": -1, "-": 1 };

export class Controls {
  #pointers = new Map();
  #keys = new Set();

  // `element`: the picture; `moved()` is called after every motion; `commands`: functions by key, pressed once.
  constructor(element, camera, moved, commands) {
    this.element = element;
    this.camera = camera;
    this.moved = moved;
    this.flies = false;
    const on = (name, act, options) => element.addEventListener(name, act, options);
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      on(name, (event) => this.#pointers.delete(event.pointerId));
    }
    on("wheel", (event) => this.#wheel(event), { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => this.#keyDown(event, commands));
    document.addEventListener("keyup", (event) => this.#keys.delete(event.key.toLowerCase()));
    window.addEventListener("blur", () => this.#keys.clear());
  }

  get busy() {
    return this.#pointers.size > 0 || this.#keys.size > 0;
  }

  // Moves on by the keys that are held, for so many seconds.
  step(seconds) {
    if (this.#keys.size === 0) return;
    const camera = this.camera;
    const far = KEY_SPEED * camera.distance * seconds;
    for (const key of this.#keys) {
      if (key in TURNS) this.#turn(...TURNS[key].map((n) => n * KEY_TURN * seconds));
      else if (key in FLIGHTS) camera.fly(...FLIGHTS[key].map((n) => n * far));
      else camera.zoom(Math.exp(ZOOMS[key] * seconds));
    }
    this.moved();
  }

  #turn(across, down) {
    if (this.flies) this.camera.turn(-across, -down);
    else this.camera.orbit(across, down);
  }

  #keyDown(event, commands) {
    // a button or slider that has the focus keeps its keys
    if (![this.element, document.body].includes(event.target)) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key in TURNS || key in FLIGHTS || key in ZOOMS) {
      this.#keys.add(key);
      this.moved();
    } else if (key in commands) {
      commands[key]();
    } else {
      return;
    }
    event.preventDefault();
  }

  #down(event) {
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    const pans = event.button !== 0 || event.shiftKey;
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pans });
    event.preventDefault();
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) return;
    const now = { ...before, x: event.clientX, y: event.clientY };
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, pointer]) => pointer);
    this.#pointers.set(event.pointerId, now);
    const { width, height } = this.element.getBoundingClientRect();
    const side = Math.min(width, height);
    const [across, down] = [(now.x - before.x) / side, (now.y - before.y) / side];
    if (others.length === 1) this.#pinch(before, now, others[0], across / 2, down / 2);
    else if (now.pans) this.camera.pan(-across, down);
    else this.#turn(across * TURN, down * TURN);
    this.moved();
  }

  #pinch(before, now, other, across, down) {
    const apart = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    this.camera.pan(-across, down);
    this.camera.zoom(apart(before) / apart(now));
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const way = Math.max(-300, Math.min(300, event.deltaY * lines));
    // a pinch on a touch pad arrives as a wheel with the control key
    this.camera.zoom(Math.exp(way * WHEEL * (event.ctrlKey ? 6 : 1)));
    this.moved();
  }
}
