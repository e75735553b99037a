-- wrk posts a photo to a server: wrk -s photo.lua URL -- FILE
function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    wrk.method, wrk.body = "POST", file:read("*a")
    wrk.headers["content-type"] = "image/jpeg"
    file:close()
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    local rate = summary.requests / summary.duration * 1e6
    print(string.format('{"rate": %.3f, "failed": %d}', rate, failed))
end
