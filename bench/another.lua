-- For wrk: the orders of another tenant, and another number of them, with each request,
-- so that hardly any is like one before. Its argument: the number of tenants.
local tenants

function init(arguments)
   tenants = tonumber(arguments[1])
end

function request()
   return wrk.format("GET", string.format("/orders?tenant=tenant-%03d&limit=%d",
      math.random(0, tenants - 1), math.random(50, 150)))
end
