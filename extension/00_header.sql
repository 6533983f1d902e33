\echo Use "CREATE EXTENSION pg_redis_migrate" to load this file. \quit

