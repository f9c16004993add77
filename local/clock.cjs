// Sets the clock of a Node process: `CLOCK_OFFSET=60 node --require local/clock.cjs …` is a minute ahead. The clock of a
// storage account need not be that of its clients; timers are not changed.

const offset = Number(process.env.CLOCK_OFFSET ?? 0) * 1000;
const { now } = Date;

if (offset) {
  const read = () => now() + offset;
  globalThis.Date = new Proxy(Date, {
    construct: (target, values, caller) => Reflect.construct(target, values.length ? values : [read()], caller),
    apply: (target) => new target(read()).toString(),
    get: (target, name) => (name === 'now' ? read : target[name]),
  });
}
