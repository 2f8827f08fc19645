# shellcheck shell=bash
# A throw-away certificate authority and what it signs. Elliptic curves, because
# they take milliseconds.

make_pki() { # DIR
  (
    umask 077
    mkdir -p "$1"
    cd "$1" || exit
    # An extension section makes the certificates X.509 v3; rustls refuses v1.
    cat >openssl.cnf <<-CNF
	[req]
	distinguished_name = dn
	[dn]
	[ca]
	basicConstraints = critical, CA:TRUE
	keyUsage = critical, keyCertSign, digitalSignature
	subjectKeyIdentifier = hash
	[leaf]
	basicConstraints = critical, CA:FALSE
	keyUsage = critical, digitalSignature
	extendedKeyUsage = serverAuth, clientAuth
	subjectAltName = DNS:localhost, DNS:node-1, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, DNS:kubernetes.default.svc.cluster.local, IP:127.0.0.1, IP:$SERVICE_IP, IP:$NODE_IP
	CNF
    certificate ca /CN=pallet-test-ca -extensions ca
    signed server /CN=kube-apiserver
    signed node /O=system:nodes/CN=system:node:node-1
    signed admin /O=system:masters/CN=admin
    signed kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    signed kube-controller-manager /CN=system:kube-controller-manager
    signed kube-scheduler /CN=system:kube-scheduler
    signed kube-proxy /CN=system:kube-proxy
    signed kwok /O=system:masters/CN=kwok
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sa.key
    openssl pkey -in sa.key -pubout -out sa.pub
  )
}

certificate() { # NAME SUBJECT OPTION...
  openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
    -keyout "$1.key" -out "$1.crt" -subj "$2" "${@:3}" 2>openssl.log || {
    cat openssl.log
    return 1
  }
}
signed() { certificate "$1" "$2" -extensions leaf -CA ca.crt -CAkey ca.key; }

make_kubeconfig() { # PKI_DIR CERTIFICATE OUT
  (
    umask 077
    cat >"$3" <<-YAML
	apiVersion: v1
	kind: Config
	clusters:
	- name: pallet
	  cluster:
	    server: https://$NODE_IP:6443
	    certificate-authority-data: $(base64 -w0 "$1/ca.crt")
	users:
	- name: $2
	  user:
	    client-certificate-data: $(base64 -w0 "$1/$2.crt")
	    client-key-data: $(base64 -w0 "$1/$2.key")
	contexts:
	- name: pallet
	  context: {cluster: pallet, user: $2}
	current-context: pallet
	YAML
  )
}
