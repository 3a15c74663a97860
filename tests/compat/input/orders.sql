-- Work for sqlite3, on the tab-separated file orders.tsv: id, name, price, words.
CREATE TABLE orders(id INTEGER, name TEXT, price INTEGER, words TEXT);
.mode tabs
.import orders.tsv orders
CREATE INDEX orders_name ON orders(name);
CREATE INDEX orders_price ON orders(price DESC, id) WHERE price % 2 = 0;
ANALYZE;
SELECT count(*), sum(price), avg(price), min(words), max(words) FROM orders;
SELECT name, count(*), sum(price), group_concat(id % 10, '') FROM orders GROUP BY name ORDER BY name LIMIT 60;
SELECT a.name, count(*) FROM orders a JOIN orders b ON a.price = b.price AND a.id < b.id GROUP BY 1 ORDER BY 2 DESC, 1;
SELECT id, price, rank() OVER (PARTITION BY name ORDER BY price DESC, id) r,
	sum(price) OVER (PARTITION BY name ORDER BY id ROWS 5 PRECEDING) s
	FROM orders ORDER BY r, id LIMIT 100;

-- Words, a row each, by recursion.
CREATE TABLE words AS
	WITH RECURSIVE split(id, word, rest) AS (
		SELECT id, '', words || ' ' FROM orders
		UNION ALL
		SELECT id, substr(rest, 1, instr(rest, ' ') - 1), substr(rest, instr(rest, ' ') + 1) FROM split WHERE rest <> '')
	SELECT id, word FROM split WHERE word <> '';
SELECT word, count(*), count(DISTINCT id), total(id) FROM words GROUP BY word ORDER BY 2 DESC;

CREATE VIRTUAL TABLE found USING fts5(words);
INSERT INTO found(rowid, words) SELECT id, words FROM orders;
SELECT rowid, highlight(found, 0, '<', '>') FROM found WHERE found MATCH 'amber NOT river' ORDER BY rank, rowid LIMIT 40;
INSERT INTO found(found) VALUES ('optimize');

SELECT json_group_array(json_object('id', id, 'name', name, 'words', json_array(words, price)))
	FROM (SELECT * FROM orders ORDER BY id LIMIT 50);
SELECT key, count(*) FROM (SELECT j.key FROM orders, json_each('{"a":[1,2,{"b":' || price || '}],"c":null}') j) GROUP BY key;

CREATE TABLE journal(n INTEGER PRIMARY KEY, old INTEGER, new INTEGER);
CREATE TRIGGER priced AFTER UPDATE OF price ON orders BEGIN
	INSERT INTO journal(old, new) VALUES (old.price, new.price);
END;
BEGIN;
UPDATE orders SET price = price * 3 / 2 WHERE id % 5 = 0;
SAVEPOINT here;
DELETE FROM orders WHERE name LIKE '%green%';
SELECT changes();
ROLLBACK TO here;
UPDATE orders SET words = printf('%s %05d %.3f', upper(words), id, price / 7.0) WHERE id % 11 = 3;
COMMIT;
SELECT count(*), sum(new - old) FROM journal;
INSERT INTO orders(id, name, price, words) VALUES (1, 'a', 2, hex(zeroblob(3000))) RETURNING length(words);
DELETE FROM words WHERE id % 3 = 0;
VACUUM;
PRAGMA integrity_check;
SELECT id, words FROM orders WHERE id % 997 = 3 ORDER BY id;
