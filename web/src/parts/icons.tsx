// Icons as paths of 16 by 16 units.

const PATHS = {
  overview: "M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z",
  map: "M3.5 5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM12.5 7a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM7 14a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM5 3.8l6 1.4M4.2 4.9l2.2 6.2M11.5 6.8l-3.6 4.6",
  events: "M5.5 3.5H14M5.5 8H14M5.5 12.5H14M2.2 3.5h.6M2.2 8h.6M2.2 12.5h.6",
  jobs: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 4.8V8l2.4 1.6",
  certificates: "M8 1.8l5 2v4c0 3-2.1 5.3-5 6.4-2.900-1.100-5-3.400-5-6.400v-4zM5.800 8l1.600 1.600 2.900-3",
  nodes: "M2.500 3h11v4h-11zM2.500 9h11v4h-11zM5 5h.5M5 11h.5",
  search: "M7 2.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9zM10.400 10.400L14 14",
  sun: "M8 5.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600zM8 1.500v1.300M8 13.200v1.300M1.500 8h1.300M13.200 8h1.300M3.400 3.400l.9.9M11.700 11.700l.9.9M3.400 12.600l.9-.9M11.700 4.300l.9-.9",
  moon: "M13.500 9.600A5.800 5.800 0 0 1 6.400 2.500a5.800 5.800 0 1 0 7.100 7.100z",
  back: "M9.500 3L4.500 8l5 5",
  next: "M6 3l5 5-5 5",
  scale: "M3 13V9M8 13V6M13 13V3",
  restart: "M13 8a5 5 0 1 1-1.600-3.700M13 2v3h-3",
  undo: "M3 6h6.500a3.500 3.500 0 0 1 0 7H6M5.500 3L2.500 6l3 3",
  pause: "M5.500 3v10M10.500 3v10",
  play: "M5 3l8 5-8 5z",
  drain: "M8 2v8M4.500 7L8 10.500 11.500 7M3 13.500h10",
  record: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  copy: "M6 5.500h7.500v8H6zM3.500 10.500h-1v-8H10v1",
  leave: "M6.500 2.500h-4v11h4M10 5l3 3-3 3M13 8H6",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}
