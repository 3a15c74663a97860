# shellcheck shell=bash disable=SC2034,SC2154
# sqlite3: tables, indexes, joins, window functions, text search, JSON, transactions, VACUUM, dump.
needs=(sqlite3)

workload() {
	generate 8000 >orders.tsv
	under sqlite3 -batch -bail database <"$here/input/orders.sql"
	under sqlite3 -batch database .dump >dump
	under sqlite3 -batch copy <dump
	under sqlite3 -batch copy .dump | cmp - dump && echo 'the dumps agree'
	rm database copy
}
