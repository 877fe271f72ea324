// Time of a scene that moves: a slider, and play.

const SECONDS = 6; // of one pass

export class Timeline {
  constructor(store, times) {
    this.store = store;
    this.times = times;
    this.playing = false;
    document.getElementById("timeline").hidden = times === null;
    if (times === null) return;
    this.slider = document.getElementById("time");
    [this.slider.min, this.slider.max] = times;
    this.button = document.getElementById("play");
    this.slider.addEventListener("input", () => this.#set(Number(this.slider.value)));
    this.button.addEventListener("click", () => this.toggle());
    store.onChange(() => this.arrange());
    this.arrange();
  }

  toggle() {
    if (this.times === null) return;
    this.playing = !this.playing;
    this.button.setAttribute("aria-pressed", this.playing);
    this.button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.button.querySelector("path").setAttribute("d", this.playing ? "M7 5h3v14H7zM14 5h3v14h-3z" : "M8 5v14l11-7z");
    if (this.playing) this.onPlay();
  }

  onPlay() {}

  // Goes on by so many seconds; begins again at the end.
  step(seconds) {
    if (!this.playing) return;
    const [first, last] = this.times;
    const next = this.store.values.time + ((last - first) * seconds) / SECONDS;
    this.#set(next > last ? first : next);
  }

  #set(time) {
    this.store.change({ time, view: null });
  }

  arrange() {
    const { time } = this.store.values;
    this.slider.value = time;
    document.getElementById("time-value").textContent = time.toFixed(2);
  }
}
