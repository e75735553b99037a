-- Requests of encoders.py for wrk: the bodies in a file, one per line, in random order. Prints the
-- rate, the latencies in ms and the number of failures as JSON.

local bodies = {}

function init(arguments)
  for line in io.lines(arguments[1]) do
    bodies[#bodies + 1] = wrk.format("POST", nil, { ["content-type"] = "application/json" }, line)
  end
  math.randomseed(1)
end

function request()
  return bodies[math.random(#bodies)]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"rate": %.2f, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status
  ))
end
