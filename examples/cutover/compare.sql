-- Carts that differ between what the application remembers and the table. psql -v file=carts.json -f compare.sql
\set carts `cat :'file'`
SELECT coalesce(a.key::bigint, c.customer) AS customer, a.value AS remembered, c.items AS stored
FROM jsonb_each(:'carts') AS a
FULL JOIN carts AS c ON c.customer = a.key::bigint
WHERE (SELECT jsonb_object_agg(i.key, i.value::text) FROM jsonb_each(a.value) AS i) IS DISTINCT FROM c.items
ORDER BY 1;
