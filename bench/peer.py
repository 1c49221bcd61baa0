"""The peer of spine-http: the usual Python service, FastAPI with asyncpg, at its best.
It runs one statement and sends the result as it is.

    uvicorn peer:app        with PEER_DSN in the environment
"""
import contextlib
import os

import asyncpg
import fastapi

JSON = 'application/json'
pool = None


@contextlib.asynccontextmanager
async def connected(app):
    global pool
    pool = await asyncpg.create_pool(os.environ['PEER_DSN'], min_size=4, max_size=4,
                                     server_settings={'jit': 'off', 'timezone': 'UTC'})
    yield
    await pool.close()


app = fastapi.FastAPI(lifespan=connected)


@app.get('/orders')
async def orders(tenant: str | None = None, status: str | None = None, limit: int = 100):
    body = await pool.fetchval("SELECT coalesce(json_agg(o), '[]')::text FROM spine_orders($1, $2, $3) o",
                               tenant, status, limit)
    return fastapi.Response(body, media_type=JSON)


@app.get('/stats')
async def stats(tenant: str | None = None):
    body = await pool.fetchval("SELECT coalesce(json_agg(s), '[]')::text FROM spine_stats_summary($1) s", tenant)
    return fastapi.Response(body, media_type=JSON)


@app.get('/metrics')
async def metrics():
    return fastapi.Response(await pool.fetchval('SELECT spine_metrics_text()'), media_type='text/plain')
