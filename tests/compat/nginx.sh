# shellcheck shell=bash disable=SC2034,SC2154
# nginx: a master and two workers on a unix socket: files, gzip, ranges, a proxy to itself, a reload.
needs=(nginx python3)

fetch_ready() {
	python3 "$here/input/fetch.py" socket /small
}

workload() {
	local user=''
	[ "$(id -u)" -ne 0 ] || user="user root;"
	mkdir site logs
	generate 20 >site/small
	generate 20000 >site/large
	touch -d @1700000000 site/small site/large
	sed "s|@user@|$user|; s|@directory@|$PWD|g" "$here/input/nginx.conf" >nginx.conf
	start nginx -p "$PWD" -c "$PWD/nginx.conf" -e "$PWD/logs/error.log"
	wait_for fetch_ready || return
	check_mapped "$server"
	python3 "$here/input/fetch.py" socket /small /large /missing /proxy/large /proxy/small /gzip/large
	kill -HUP "$server"
	for _ in 1 2 3 4 5; do
		python3 "$here/input/fetch.py" socket /proxy/large /gzip/large /small
	done
	kill -QUIT "$server"
	finish "$server"
	rm -rf logs nginx.conf socket
}
