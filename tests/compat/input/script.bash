# Work for bash: reads a file of tab-separated words and does to it what scripts do.
# shellcheck shell=bash
declare -A count length
declare -a lines

while IFS=$'\t' read -r id name price words; do
	lines[id]="$name: $words"
	for word in $words; do
		count[$word]=$((${count[$word]:-0} + 1))
		length[${#word}]+=${word:0:1}
	done
	total=$((${total:-0} + price))
done <"$1"

echo "total $total in ${#lines[@]} lines"
for word in "${!count[@]}"; do
	printf '%s %d\n' "$word" "${count[$word]}"
done | sort
for n in "${!length[@]}"; do
	printf '%d %d %.20s\n' "$n" "${#length[$n]}" "${length[$n]}"
done | sort -n

# A string that grows, and comes apart again.
text=
for line in "${lines[@]}"; do
	text+="$line;"
	[ ${#text} -lt 20000 ] || text=${text:10000}
done
echo "${#text} ${text: -40}"
IFS=';' read -ra parts <<<"$text"
echo "${#parts[@]} ${parts[3]^^} ${parts[4]//[aeiou]/_}"

fibonacci() {
	if [ "$1" -lt 2 ]; then echo "$1"; else echo $(($(fibonacci $(($1 - 1))) + $(fibonacci $(($1 - 2))))); fi
}
fibonacci 9

# Subshells, pipes, process substitution, traps.
for n in {1..60}; do
	value=$(echo "$n" | while read -r m; do echo $((m * m)); done)
	sum=$((${sum:-0} + value))
done
echo "sum $sum"
diff <(printf '%s\n' "${lines[@]:0:400}") <(printf '%s\n' "${lines[@]:1:400}") | wc -l
(
	trap 'echo "left with $?"' EXIT
	trap 'echo usr1' USR1
	kill -USR1 "$BASHPID"
	exit 3
)
for n in {1..8}; do
	(
		for m in {1..300}; do list[m]="$n-$m"; done
		echo "${list[*]}" | cksum >"part$n"
	) &
done
wait
cat part[1-8]
rm part[1-8]
[[ ${lines[17]} =~ ([a-z]+)\ ([a-z]+):\ (.*) ]] && printf '<%s>' "${BASH_REMATCH[@]}"
echo
mapfile -t -s 10 -n 5 some <"$1"
printf '%q\n' "${some[@]}"
