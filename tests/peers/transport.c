/* charon's ESP in its own process (kernel-libipsec) knows tunnel mode only, and refuses the transport mode that carries L2TP.
 * The keys and the state of an SA are the same in both. Preloaded, this lets charon make SAs in transport mode, so that a set-up
 * can be measured whole; no packet goes through them. For strongSwan 5.9. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunk {
	void *octets;
	size_t length;
};

struct mark {
	uint32_t value;
	uint32_t mask;
};

enum { MODE_TUNNEL = 2 };

typedef void *create(uint32_t spi, void *source, void *destination, uint8_t protocol, uint32_t reqid, struct mark mark,
		     uint32_t tfc, void *lifetime, uint16_t cipher, struct chunk cipher_key, uint16_t integrity,
		     struct chunk integrity_key, int mode, uint16_t ipcomp, uint16_t cpi, bool encap, bool esn, bool inbound);

void *ipsec_sa_create(uint32_t spi, void *source, void *destination, uint8_t protocol, uint32_t reqid, struct mark mark,
		      uint32_t tfc, void *lifetime, uint16_t cipher, struct chunk cipher_key, uint16_t integrity,
		      struct chunk integrity_key, int mode, uint16_t ipcomp, uint16_t cpi, bool encap, bool esn, bool inbound)
{
	static create *original;

	if (!original) {
		/* A plugin brings the library along, so that it is not among those that RTLD_NEXT looks at. */
		void *library = dlopen("libipsec.so.0", RTLD_LAZY | RTLD_NOLOAD);
		original = library ? (create *)dlsym(library, "ipsec_sa_create") : NULL;
	}
	(void)mode;
	return original ? original(spi, source, destination, protocol, reqid, mark, tfc, lifetime, cipher, cipher_key, integrity,
				   integrity_key, MODE_TUNNEL, ipcomp, cpi, encap, esn, inbound)
			: NULL;
}
