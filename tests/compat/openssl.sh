# shellcheck shell=bash disable=SC2034,SC2154
# openssl: digests, ciphers, key files, signatures that are the same each time.
needs=(openssl)

workload() {
	local algorithm
	generate 20000 >text
	for algorithm in md5 sha1 sha256 sha512 sha3-256 blake2b512; do
		under openssl dgst "-$algorithm" text
	done
	for algorithm in aes-128-cbc aes-256-ctr chacha20 camellia-256-cbc; do
		under openssl enc "-$algorithm" -pbkdf2 -k secret -S 0011223344556677 -in text -out secret
		sha256sum secret
		under openssl enc -d "-$algorithm" -pbkdf2 -k secret -S 0011223344556677 -in secret | cmp - text
	done
	# An Ed25519 key with a seed of our own, in PKCS #8.
	printf '%b' "$(printf '302e020100300506032b657004220420%064x' 123456789 | sed 's/../\\x&/g')" >key.der
	under openssl pkey -inform DER -in key.der -out key.pem
	under openssl pkey -in key.pem -text -noout
	under openssl pkey -in key.pem -pubout -out public.pem
	under openssl pkeyutl -sign -rawin -inkey key.pem -in text -out signature
	under openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in text -sigfile signature
	under openssl asn1parse -inform DER -in key.der
	under openssl prime 1000000007
	under openssl ciphers -v ALL | sha256sum
	under openssl base64 -in text | sha256sum
}
