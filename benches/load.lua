-- Requests of `make load` for wrk: POST /moderate with texts of 15 random words. Prints the rate of
-- responses, their latencies, and the number of errors.

local words = {}
for word in ("the a my this our council garden market street bakery river bridge concert says wants takes closes paints forgets likes "
  .. "old green loud broken early small cheap famous near behind without after and because while again today never often slowly"):gmatch("%S+") do
  words[#words + 1] = word
end

function request()
  local post = {}
  for place = 1, 15 do
    post[place] = words[math.random(#words)]
  end
  return wrk.format("POST", "/moderate", { ["content-type"] = "application/json" }, '{"input":"' .. table.concat(post, " ") .. '"}')
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    "%.0f responses/s; p50 %.2f ms, p90 %.2f ms, p99 %.2f ms; %d of %d not 200, %d without a response\n",
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    errors.status, summary.requests, failed
  ))
end
