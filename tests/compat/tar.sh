# shellcheck shell=bash disable=SC2034,SC2154
# tar, xz and gzip: a tree packed, compressed with two threads, unpacked and compared.
needs=(tar xz gzip)

workload() {
	local n
	mkdir tree
	for n in 1 2 3 4 5 6 7 8 9; do
		mkdir "tree/$n"
		generate $((n * 400)) >"tree/$n/words"
		head -c $((n * 7919)) "tree/$n/words" >"tree/$n/head"
	done
	under tar --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner --mode=go=rX \
		-cf tree.tar tree
	under xz -k -6 -T2 --block-size=256KiB tree.tar
	under gzip -n -9 -k tree.tar
	sha256sum tree.tar tree.tar.xz tree.tar.gz
	mkdir out1 out2
	under tar -C out1 -xJf tree.tar.xz
	under gzip -dc tree.tar.gz | under tar -C out2 -xf -
	diff -r tree out1/tree && diff -r tree out2/tree && echo 'all came back'
	under tar -tvf tree.tar
	under xz -T2 -dc tree.tar.xz | cmp - tree.tar
	rm -rf out1 out2
}
