// Numbers, sizes and times for people.

const plain = new Intl.NumberFormat("en");

export const count = (n) => plain.format(n);

export function bytes(n) {
  if (n >= 1e12) return `${(n / 1e12).toFixed(2)} TB`;
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} GB`;
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)} MB`;
  return n >= 1e3 ? `${(n / 1e3).toFixed(1)} kB` : `${n} bytes`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// Of seconds since the epoch: the hour today, else the day too.
export function when(seconds) {
  const then = new Date(seconds * 1000);
  const hour = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (then.toDateString() === new Date().toDateString()) return hour;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })}, ${hour}`;
}

export const short = (id) => (id.length > 14 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id);

export const words = (name) => name.replaceAll("_", " ");

const PHASES = {
  verify: "checking the uploads' hashes",
  load: "loading the ciphertexts",
  forward: "multiplying data by weights",
  residual: "evaluating the residual polynomial",
  backward: "summing the gradient",
  update: "updating the weights",
};

export const phase = (name) => PHASES[name] ?? words(name);
