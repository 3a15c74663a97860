# shellcheck shell=bash disable=SC2034,SC2154
# shellcheck disable=SC2016
# jq: filters that group, sort, fold, match and rebuild.
needs=(jq)

workload() {
	generate 4000 | under jq -cR 'split("\t") | {id: .[0] | tonumber, name: .[1], price: .[2] | tonumber,
		words: .[3] | split(" ")}' >rows
	under jq -s 'group_by(.name) | map({name: .[0].name, n: length, sum: map(.price) | add})' rows
	under jq -s '[.[] | .words[]] | reduce .[] as $w ({}; .[$w] += 1) | to_entries | sort_by(-.value)' rows
	under jq -c 'select(.price % 7 == 0) | .words |= map(ascii_upcase | gsub("E"; "3"))' rows
	under jq -sc 'def walk2(f): if type == "array" then map(walk2(f)) else f end;
		map([.id, .words]) | walk2(if type == "string" then ltrimstr("a") else . end)' rows | sha256sum
	under jq -s 'sort_by(.price, .id) | map(tojson) | map(@base64) | join(",")' rows | sha256sum
	under_failing jq . <<<'{"broken": [1, 2' 2>&1
}
