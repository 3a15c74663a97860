# shellcheck shell=bash disable=SC2034,SC2154
# redis: every kind of value, Lua, eviction of expired keys, a benchmark with many clients, a snapshot
# and a log rewrite by forked children, and a restart from what they wrote.
needs=(redis-server redis-cli redis-benchmark)

client() {
	redis-cli -s "$PWD/socket" "$@"
}

start_redis() {
	start redis-server --port 0 --unixsocket "$PWD/socket" --dir "$PWD" --save '' --appendonly no \
		--enable-debug-command yes --io-threads 2 --hash-max-listpack-entries 8 \
		--logfile "$PWD/log"
	wait_for client PING
	check_mapped "$server"
}

no_child_is_saving() {
	client INFO persistence | grep -q 'rdb_bgsave_in_progress:0' &&
		client INFO persistence | grep -q 'aof_rewrite_in_progress:0'
}

values() {
	generate 3000 | awk -F'\t' '{
		gsub(/ /, "_", $2); gsub(/ /, "_", $4)
		print "SET text:" $1, $4
		print "APPEND text:" $1 % 50, $4
		print "HSET hash:" $1 % 100, $2 ":" $3, $4
		print "RPUSH list:" $1 % 30, $4
		print "SADD set:" $1 % 20, $2, $3
		print "ZADD ranks", $3, $2 ":" $1 % 300
		print "XADD stream", $1 + 1 "-1", "field", $4
		if ($1 % 7 == 0) print "DEL text:" $1 - 3
	}'
}

workload() {
	start_redis || return
	values | under redis-cli -s "$PWD/socket" | sha256sum
	under redis-benchmark -s "$PWD/socket" -n 8000 -c 20 -P 4 --threads 2 -q -r 1000 \
		-t set,get,incr,lpush,rpop,sadd,hset,spop,zadd,lrange_100,mset >benchmark &&
		echo 'the benchmark ended well'
	client DEL mylist myset myzset counter:__rand_int__ >/dev/null
	client --scan --pattern 'key:*' | xargs -n 200 redis-cli -s "$PWD/socket" DEL >/dev/null
	client --scan --pattern '*:0000*' | xargs -n 200 redis-cli -s "$PWD/socket" DEL >/dev/null
	client DEL key:__rand_int__ myhash >/dev/null
	client EVAL 'local n = 0 for i = 1, 20000 do n = n + #tostring(i) .. "" end return tostring(n)' 0
	client SORT list:7 ALPHA LIMIT 0 20
	client ZRANGE ranks 0 40 WITHSCORES
	client HGETALL hash:5 | paste - - | sort
	client LRANGE list:3 0 10
	client SUNION set:1 set:2 set:3 | sort
	client DEBUG DIGEST
	client BGSAVE >/dev/null
	wait_for no_child_is_saving
	client DEBUG RELOAD
	client CONFIG SET appendonly yes
	wait_for no_child_is_saving
	client BGREWRITEAOF >/dev/null
	wait_for no_child_is_saving
	client DEBUG DIGEST
	client DBSIZE
	client CONFIG SET appendonly no
	client SAVE
	client SHUTDOWN NOSAVE
	finish "$server"
	start_redis || return
	client DEBUG DIGEST
	client SHUTDOWN NOSAVE
	finish "$server"
	rm -rf socket log benchmark dump.rdb appendonlydir
}
