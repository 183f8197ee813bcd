// Single flight: callers that ask for the same thing at the same time share one attempt.

/** Attempts in flight by key. A failed attempt is forgotten, so the next caller tries again. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Promise<T>>();

  /** Joins the attempt under way for the key or starts one. The attempt must not depend on one caller's signal. */
  async run(key: string, attempt: () => Promise<T>): Promise<T> {
    const flying = this.#flights.get(key);
    if (flying !== undefined) return await flying;
    const flight = attempt().finally(() => {
      this.#flights.delete(key);
    });
    this.#flights.set(key, flight);
    return await flight;
  }
}
