/** The package as it is built in this clone. This folder is a package of its own, so the name alone would not find it. */
export * from '../dist/index.js'
