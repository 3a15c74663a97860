# shellcheck shell=bash disable=SC2034,SC2154
# git: commits, branches, a merge, history, blame, gc, fsck, and a clone through its own processes.
needs=(git)

commit() {
	GIT_AUTHOR_DATE="$((1700000000 + $1)) +0000" GIT_COMMITTER_DATE="$((1700000000 + $1)) +0000" \
		under git commit -q -m "change $1"
}

workload() {
	local n
	export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=C
	export GIT_COMMITTER_EMAIL=c@example.org GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
	export GIT_AUTHOR_DATE='1700000100 +0000' GIT_COMMITTER_DATE='1700000100 +0000'
	under git init -q -b main repository
	cd repository || return
	git config pack.threads 2
	git config gc.auto 0
	generate 3000 >../lines
	for n in 1 2 3 4 5 6 7 8; do
		head -n $((n * 300)) ../lines >"file$((n % 3))"
		under git add .
		commit "$n"
	done
	under git checkout -q -b side HEAD~3
	head -n 50 ../lines >aside
	under git add .
	commit 20
	under git checkout -q main
	under git merge -q -m merged side
	under git log --graph --stat --format='%H %s'
	under git log -p --follow file1
	under git diff HEAD~4 --word-diff
	under git blame file2
	under git grep -n amber
	under git repack -q -a -d -f --depth=20
	under git gc -q --prune=now
	under git fsck --full --strict
	under git clone -q --no-local . ../clone
	cd ../clone || return
	under git cat-file --batch-all-objects --batch-check
	under git archive HEAD | sha256sum
	cd ..
	rm -rf repository clone
}
