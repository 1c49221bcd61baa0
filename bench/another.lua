-- For wrk: each request asks for a random number of orders of a random tenant, so that
-- requests are hardly ever the same. The argument is the number of tenants.
local tenants

function init(arguments)
   tenants = tonumber(arguments[1])
end

function request()
   return wrk.format("GET", string.format("/orders?tenant=tenant-%03d&limit=%d",
      math.random(0, tenants - 1), math.random(50, 150)))
end
